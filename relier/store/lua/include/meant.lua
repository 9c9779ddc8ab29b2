-- Which dead letter somebody means who looked at the DLQ before: a task and the time of its death. One that was released since, or died
-- again of something else, is another letter. Needs record.

-- Returns the record of the letter that is meant; else nil, and why it cannot be touched:
--   gone     it is no dead letter any more, or another one        pending  its last hooks are not done
--   newer    a newer version wrote it                             unknown  there is none of this id
local function meant(id, died)
  local rec, newer = load(id)
  if newer then return nil, 'newer' end
  if not rec then return nil, 'unknown' end
  local score = redis.call('ZSCORE', DLQ, id)
  if not score or (died ~= '' and int(tonumber(score)) ~= died) then return nil, 'gone' end
  if rec[STATE] ~= 'd' then return nil, 'pending' end
  return rec
end

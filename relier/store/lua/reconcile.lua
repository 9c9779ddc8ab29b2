#!lua flags=allow-oom
-- Compares what the store believes a worker to run with what it really runs.
--
-- ARGV  1 now or ''   2 worker   3 number of the snapshot   4… pairs of task id, fence
-- Reply {task ids released, ids of runs that are lost to the worker, ids of runs that the store lacks, ids of runs that were asked to end}
--
-- R8: a run is put into the worker's local set before its claim is sent, and a claim carries how many snapshots the worker had begun
-- by then. So a run that was asked for before this snapshot and is not in it is nobody's: it is put back, without a crash. Later ones
-- are left alone. The worker's own count decides, no clock. It never takes a run from a worker: a local run under another fence was
-- lost before. A crash before or after it changes nothing that the next beat does not repeat.
-- include clock
-- include record
-- include stats
local now = now_us()
local worker, snapshot = ARGV[2], tonumber(ARGV[3])
if buried(worker) then return { {}, {}, {}, {} } end
local here, released, gone, missing, asked = {}, {}, {}, {}, {}
for i = 4, #ARGV, 2 do
  local id, fence = ARGV[i], tonumber(ARGV[i + 1])
  here[id] = true
  local rec, newer = load(id)
  if newer then
    -- Whoever wrote it decides.
  elseif fence > 0 and (not rec or rec[FENCE] < fence) then
    missing[#missing + 1] = id
  elseif fence > 0 and rec[FENCE] > fence then
    gone[#gone + 1] = id
  elseif fence > 0 and rec[STATE] == 'r' and asked_to_end(rec) then
    asked[#asked + 1] = id
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', OWN, '-inf', '(' .. int(snapshot), 'LIMIT', 0, 100)) do
  if not here[id] then
    local rec, newer = load(id)
    if newer then
      -- Left alone, and found again by whoever can read it.
    elseif not rec or rec[OWNER] ~= worker then
      redis.call('ZREM', OWN, id)
    elseif rec[STATE] == 'r' then
      remember_run(rec, worker, now, 'released')
      put_back(id, rec, now, AT_ONCE)
      save(id, rec)
      count(rec, 'released')
      event(now, 'released', id, 'worker', worker)
      released[#released + 1] = id
    elseif rec[STATE] == 'h' then
      disown(id, rec)
      rec[FENCE], rec[STICKY], rec[NONCE], rec[PUBS] = next_fence(now, rec[FENCE]), true, '', 0
      set_due(id, AT_ONCE)
      save(id, rec)
      released[#released + 1] = id
    end
  end
end
return { released, gone, missing, asked }

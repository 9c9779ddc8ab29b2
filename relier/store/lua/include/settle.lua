-- Settling: the hooks of an ended task are done and its copy is acknowledged; nothing more will happen to it.
-- R5: the record may go only when our own ack script saw the copy removed and no other copy can exist (not sticky);
-- else the id is remembered for `keep` microseconds. Repeating it, or settling under an older fence, changes nothing.

-- Of a task that completed at its first try there is nothing to tell but that; a remembered id alone takes half of the memory.
local function ordinary(rec)
  return rec[OUTCOME] == 'completed' and rec[ATTEMPT] == 0 and rec[CRASHES] == 0
end

local function settle(id, fence, confirmed, keep)
  local rec = load(id)
  if not rec or rec[FENCE] ~= fence then return end
  if rec[STATE] == 'h' and rec[OUTCOME] == 'dead' then
    disown(id, rec)
    redis.call('ZREM', DUE, id)
    rec[STATE] = 'd'
    save(id, rec)
  elseif rec[STATE] == 'h' or rec[STATE] == 'e' then
    local forgotten, ended = confirmed and not rec[STICKY], rec[STATE] == 'e'
    if forgotten then
      disown(id, rec)
      drop_checkpoint(id, rec)
      redis.call('ZREM', END, id)
      leave_job(id, rec, 0)
    elseif not ended then
      remember_end(id, rec, rec[OUTCOME], keep)
    end
    if forgotten or ordinary(rec) then
      redis.call('HDEL', REC, id)
    elseif not ended then
      save(id, rec)
    end
  end
end

-- Triples (id, fence, confirmed) that ride on another call of the same shard, from ARGV[first] on.
local function settle_rest(first, keep)
  for i = first, #ARGV, 3 do
    settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1', keep)
  end
end

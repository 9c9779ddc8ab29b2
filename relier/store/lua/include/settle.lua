-- Settling: the hooks of an ended task are done and its copy is acknowledged; nothing more will happen to it.
-- R5: the record may go only when our own ack script saw the copy removed and no other copy can exist (not sticky);
-- else the id is remembered for `keep` microseconds. Repeating it, or settling under an older fence, changes nothing.
local function settle(id, fence, confirmed, now, keep)
  local rec = load(id)
  if not rec or rec[FENCE] ~= fence then return end
  if rec[STATE] == 'h' and rec[OUTCOME] == 'dead' then
    disown(id, rec)
    redis.call('ZREM', DUE, id)
    rec[STATE] = 'd'
    save(id, rec)
  elseif rec[STATE] == 'h' or rec[STATE] == 'e' then
    if confirmed and not rec[STICKY] then
      disown(id, rec)
      redis.call('HDEL', REC, id)
      redis.call('ZREM', DUE, id)
    elseif rec[STATE] == 'h' then
      remember_end(id, rec, rec[OUTCOME], now + keep)
      save(id, rec)
    end
  end
end

-- Triples (id, fence, confirmed) that ride on another call of the same shard, from ARGV[first] on.
local function settle_rest(first, now, keep)
  for i = first, #ARGV, 3 do
    settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1', now, keep)
  end
end

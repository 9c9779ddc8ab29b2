#!lua flags=allow-oom
-- Lets tasks out of a lot: somebody can run them now.
--
-- ARGV  1 now or ''   2 the lot's name   3 how many at most
-- Reply how many are left in the lot
--
-- Accepts records that are still parked; what moved on only leaves the lot. A crash before it: the lot is found again. After it: they
-- are due, and published, or parked again.
-- include clock
-- include record
-- include due_time
-- include lots
-- include park
local at, key = due_time(now_us()), lot_key(ARGV[2])
local popped = redis.call('ZPOPMIN', key, ARGV[3])
for i = 1, #popped, 2 do
  local id = popped[i]
  local rec = load(id)
  local later = tonumber(redis.call('ZSCORE', DUE, id) or '0') > at
  if rec and awaits_publication(rec) and rec[PUBS] == 0 and later and (rec[STATE] == 'h' or is_parked_for(rec[REASON])) then
    set_due(id, AT_ONCE)
  end
end
local left = redis.call('ZCARD', key)
if left == 0 then redis.call('SREM', lots(), ARGV[2]) end
return left

-- Leases permits of one limit to a process, takes back what it did not use, and counts what it reports.
--
-- KEYS  1 adm     hash  name of a limit -> its state (include/window.lua)   2 adm.at  zset  name -> when its state may be forgotten (µs)
--       3 meta    hash  counters of the shard
-- ARGV  1 now or ''   2 name   3 limit   4 window (µs)   5 permits wanted   6 permits needed, at least   7 admitted without a permit
--       8 epoch, 9 sub-bucket, 10 number of the unused permits of an earlier lease   11 admitted, 12 rejected, 13 failed open: for the counters
-- Reply {granted, µs for which they may be used, epoch, sub-bucket, µs until the needed ones may be free, used, now}
--
-- The promise: in no interval as long as the window are more than `limit` tasks admitted, however they fall. The argument:
--   1. Time is cut into sub-buckets of width b, SUBBUCKETS of them in a window. Each permit is counted in the sub-bucket in which it was
--      leased, and is used in that one or never: the reply says how long that lasts, and the process counts from before it asked, on its
--      monotonic clock. So a permit's use lies between its lease and the end of its sub-bucket, whatever the network did to the reply.
--   2. A permit is counted for SPAN sub-buckets, its own included. Two admissions of an interval no longer than the window are at most
--      SUBBUCKETS sub-buckets apart, so all of them are counted together when the last one's permit is granted; SPAN > SUBBUCKETS + 1, and
--      what is more is for messages that are on their way to the broker for a while.
--   3. Permits come back only from their holder, at most once (a call is never sent twice), for the sub-bucket and the epoch in which they
--      were leased. So nothing is counted out that was used.
-- What is lost: a process that is killed takes at most one chunk with it, which counts until its sub-bucket leaves the window. The
-- conservative span costs 1 - SUBBUCKETS / SPAN of the limit.
-- Continuations and tasks that were let through while the store was away are counted without being asked (R11), so that the sum may exceed
-- the limit: then nothing else is admitted until it fits again.
-- A call whose reply is lost has leased what nobody uses. A call that arrives late leases permits whose holder has given them up.
-- The server's clock: set back, it goes on from where it was; set ahead, the window slides at once. No allow-oom: a producer's script.
-- include clock
-- include stats
-- include window
local now, name, limit, window = now_us(), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local wanted, needed, forced = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local state = load(KEYS[1], name)
if state and state[FORMAT] > OURS then return redis.error_reply('NEWER a newer Relier wrote this limit') end
state = state or new_state(now)

local width = width_of(window)
local time = advance(state, now)
local bucket = math.floor(time / width)
expire(state, bucket)

local returned = 0
if tonumber(ARGV[8]) == state[EPOCH] then returned = take_back(state, tonumber(ARGV[9]), tonumber(ARGV[10])) end
if forced > 0 then add(state, bucket, forced) end
local free, granted, wait = limit - state[SUM], 0, 0
if free >= needed then
  granted = math.min(math.max(wanted, needed), free)
  if granted > 0 then add(state, bucket, granted) else granted = 0 end
else
  wait = opening(state, needed - free, width) - time
end

state[LIMIT], state[WINDOW] = limit, window
redis.call('HSET', KEYS[1], name, cmsgpack.pack(state))
redis.call('ZADD', KEYS[2], int(time + (SPAN + 1) * width), name)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. int(time), 'LIMIT', 0, 8)) do
  redis.call('HDEL', KEYS[1], old)
  redis.call('ZREM', KEYS[2], old)
end
if string.sub(name, 1, 7) == 'global|' then
  local admitted, rejected, failed_open = granted - returned + tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
  if admitted ~= 0 then count(nil, 'admitted', admitted) end
  if rejected > 0 then count(nil, 'admission_rejected', rejected) end
  if failed_open > 0 then count(nil, 'admission_failed_open', failed_open) end
end
return { granted, (bucket + 1) * width - time, state[EPOCH], bucket, wait, state[SUM], now }

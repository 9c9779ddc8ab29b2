-- The time by which things fall due. It follows the server's clock ahead, and goes on from where it was when that is set back: what
-- waits does not wait for the same hour twice. META `seen`: about the highest time that was seen while something waited;
-- `skew`: by how much it is ahead of the server's clock. Both go when nothing waits any more.

-- Smaller steps back (µs) are waited out; and so often is the time noted.
local STEP_BACK = 10000000
local function due_time(now)
  local clock = redis.call('HMGET', META, 'seen', 'skew')
  local seen, at = tonumber(clock[1] or '0'), now + tonumber(clock[2] or '0')
  if at < seen - STEP_BACK then
    redis.call('HSET', META, 'skew', int(seen - now))
    event(now, 'clock set back', '', 'by', int(seen - at))
    at = seen
  elseif at > seen + STEP_BACK then
    redis.call('HSET', META, 'seen', int(at))
  end
  return at
end

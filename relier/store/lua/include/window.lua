-- The state of a limit: a cmsgpack array. How many permits were leased, by the sub-bucket in which they were.
--   FORMAT   EPOCH  when this state began (µs): permits of another one are not taken back   LAST  the latest time that was seen (µs)
--   OFFSET   what is added to the server's clock, which was set back (µs)   LIMIT, WINDOW (µs)  as the last caller knew them
--   SUM      of all that is counted   COUNTS  flat list of sub-bucket and permits, oldest first
local FORMAT, EPOCH, LAST, OFFSET, LIMIT, WINDOW, SUM, COUNTS = 1, 2, 3, 4, 5, 6, 7, 8
local OURS = 1

-- A window has so many sub-buckets. More of them waste less of the limit, and make processes ask more often.
local SUBBUCKETS = 200
-- A permit is counted for so many sub-buckets: see admit.lua.
local SPAN = SUBBUCKETS + 5

local function width_of(window) return math.ceil(window / SUBBUCKETS) end

local function new_state(now) return { OURS, now, now, 0, 0, 0, 0, {} } end

local function load(key, name)
  local packed = redis.call('HGET', key, name)
  return packed and cmsgpack.unpack(packed)
end

-- Returns the limit's own time, which never goes back.
local function advance(state, now)
  local time = now + state[OFFSET]
  if time < state[LAST] then
    state[OFFSET] = state[OFFSET] + state[LAST] - time
    time = state[LAST]
  end
  state[LAST] = time
  return time
end

-- Drops the sub-buckets that no longer count at the time of `bucket`.
local function expire(state, bucket)
  local counts, first = state[COUNTS], 1
  while counts[first] and counts[first] <= bucket - SPAN do
    state[SUM] = state[SUM] - counts[first + 1]
    first = first + 2
  end
  if first == 1 then return end
  local kept = {}
  for i = first, #counts do kept[#kept + 1] = counts[i] end
  state[COUNTS] = kept
end

local function add(state, bucket, permits)
  local counts = state[COUNTS]
  if counts[#counts - 1] == bucket then
    counts[#counts] = counts[#counts] + permits
  else
    counts[#counts + 1] = bucket
    counts[#counts + 1] = permits
  end
  state[SUM] = state[SUM] + permits
end

-- Takes permits back; returns how many of them were still counted.
local function take_back(state, bucket, permits)
  local counts = state[COUNTS]
  for i = #counts - 1, 1, -2 do
    if counts[i] == bucket then
      local back = math.min(permits, counts[i + 1])
      counts[i + 1] = counts[i + 1] - back
      state[SUM] = state[SUM] - back
      return back
    end
  end
  return 0
end

-- Returns when so many permits will have left the window.
local function opening(state, permits, width)
  local counts, left = state[COUNTS], 0
  for i = 1, #counts, 2 do
    left = left + counts[i + 1]
    if left >= permits then return (counts[i] + SPAN) * width end
  end
  return state[LAST] + SPAN * width
end

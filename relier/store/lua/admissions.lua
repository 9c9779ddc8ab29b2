#!lua flags=no-writes
-- Tells the limits of a shard that are in use. Changes nothing.
--
-- KEYS  1 adm   2 adm.at   3 meta   (see admit.lua)
-- ARGV  1 now or ''   2 after which name, '' at first
-- Reply a list of {name, used, limit, window (µs), µs until a permit is free, 0 if one is}: at most 100, by name
-- include clock
-- include window
local now, found, names = now_us(), {}, redis.call('HKEYS', KEYS[1])
table.sort(names)
for _, name in ipairs(names) do
  local state = name > ARGV[2] and #found < 100 and load(KEYS[1], name)
  if state and state[FORMAT] <= OURS then
    local width, time = width_of(state[WINDOW]), advance(state, now)
    expire(state, math.floor(time / width))
    local free = state[LIMIT] - state[SUM]
    local wait = free > 0 and 0 or math.max(1, opening(state, 1 - free, width) - time)
    found[#found + 1] = { name, state[SUM], state[LIMIT], state[WINDOW], wait }
  end
end
return found

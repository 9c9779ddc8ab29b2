-- When a task of an actor completed last in this shard, and under which code. Only actors that are parked when many of their tasks fail
-- alike leave this trace: a success among the failures says that the code is not to blame.
--   ok  hash actor -> `time (µs) code`
local SUCCESSES = string.sub(REC, 1, -4) .. 'ok'
local function note_success(actor, now, code) redis.call('HSET', SUCCESSES, actor, int(now) .. ' ' .. code) end

-- Returns the time (µs) of the last success under this code; 0: none, or one under another code since.
local function last_success(actor, code)
  local at, by = string.match(redis.call('HGET', SUCCESSES, actor) or '', '^(%d+) (.*)$')
  return by == code and at or '0'
end

#!lua flags=allow-oom
-- Frees one idempotency key of tasks, on a person's request.
--
-- ARGV  1 now or ''   2 the key   3 '1' if a completion is to be forgotten as well
-- Reply freed · kept
--
-- Accepts every state. Of those that wait for a key that somebody owned, the first has it then; the owner goes on, and ends as
-- it would have. A crash before it: nothing happened. After it: the key is free, or its next owner is due.
-- include clock
-- include record
-- include stats
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
local key = ARGV[2]
local entry = keys().load(key)
if not entry or keys().is_newer(entry) then return 'kept' end
if not keys().is_completed(entry) then
  keys().pass_on(key, false, now_us(), 100)
elseif ARGV[3] == '1' then
  redis.call('DEL', keys().name(key))
else
  return 'kept'
end
return 'freed'

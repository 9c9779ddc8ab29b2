#!lua flags=allow-oom
-- Gives a running task back so that another worker takes it at once: no crash and no attempt is counted.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence   5 why
-- Reply handed-over · refused · lost · unknown (see astray)
--
-- Accepts `running` under exactly this fence. Fence first: from here on the old run can change nothing, so the caller may cancel
-- it afterwards. A crash before it counts as a crash of the worker; after it the record is due. Repeated it is refused, and the
-- caller treats both replies alike: the run is no longer its own.
-- include clock
-- include record
-- include stats
local now = now_us()
local caller, id, fence = ARGV[2], ARGV[3], tonumber(ARGV[4])
local rec, newer = load(id)
local stray = astray(id, rec, newer, caller, fence)
if stray then return stray end
if not rec or rec[STATE] ~= 'r' or rec[FENCE] ~= fence then return 'refused' end
remember_run(rec, caller, now, 'handed over', ARGV[5])
put_back(id, rec, now, AT_ONCE)
save(id, rec)
count(rec, 'handed_over')
event(now, 'handed over', id, 'worker', caller)
return 'handed-over'

#!lua flags=allow-oom
-- Lets a task that waits for its time, or for somebody who can run it, be published at once.
--
-- ARGV  1 now or ''   2 task id   3 who asks
-- Reply due · queued (a copy of it waits for a worker) · waits for its key · running · dead · ended · unknown · newer
--
-- Accepts `waiting` without a copy in the broker. A cancel that was asked for is taken back. The sweep decides again: what still cannot run is
-- parked again. A crash before it: nothing happened. After it: it is due. Repeated, it answers `due`, or what became of it.
-- include clock
-- include record
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
local now, id, who = now_us(), ARGV[2], ARGV[3]
local rec, newer = load(id)
if newer then return 'newer' end
if not rec then return remembered(id) and 'ended' or 'unknown' end
if rec[STATE] ~= 's' then return ({ r = 'running', d = 'dead' })[rec[STATE]] or (rec[OUTCOME] == 'dead' and 'dead' or 'ended') end
if awaits_key(rec) then return AWAITS_KEY end
if rec[PUBS] > 0 then return 'queued' end
rec[REASON], rec[GRANTED] = '', now
remember_run(rec, who, now, 'retried')
set_due(id, due_time(now))
save(id, rec)
event(now, 'retried', id, 'by', who)
return 'due'

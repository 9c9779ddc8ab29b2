#!lua flags=allow-oom
-- Ends tasks of which a purge found copies in a broker, before it removes them.
--
-- ARGV  1 now or ''   2 the mark's time (µs)   3 retention (µs)   4 '1': only tell   5 whom the purge concerns (see include/purging.lua), as JSON
--       6 when the mark was written (µs)   7… for each copy: task id, fence in its stamp, queue, actor, when its message was enqueued (µs; 0: unknown)
-- Reply for each copy: purged (the task has ended now) · ended (it had ended before: the copy is of no use) · kept (it is newer, exempt or
--       somebody else's, running or a dead letter, or has its hooks to run: the copy stays)
--
-- Accepts no record and `waiting`; everything else is left as it is. A crash before it: the copy is still in the broker. After it: the
-- task has ended and is counted, and its copy is removed by the next purge or found settled by whoever claims it. Repeated, it answers `ended`.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
-- include lots
-- include discarding
-- include purging
local now, at, keep, only_tell = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local is_concerned, written, out, ended = concerns(ARGV[5]), tonumber(ARGV[6]), {}, 0

local function judge(id, seen, queue, actor, created)
  local rec, newer = load(id)
  if newer then return 'kept' end
  if not only_tell then meet_mark(id, rec, now, seen, queue, actor) end
  local unknown = not rec
  if unknown then
    if remembered(id) or has_result(id) or (seen > 0 and seen <= floor()) then return 'ended' end
    rec = new_record('s', now, queue, actor, 0, 0, '')
  end
  if rec[STATE] == 'e' then return 'ended' end
  if rec[STATE] ~= 's' or not is_concerned(rec) or not is_older(rec, created, at, written) then return 'kept' end
  if only_tell then return 'purged' end
  if unknown then
    rec[FENCE] = next_fence(now, seen)
    count(rec, 'accepted')
  end
  discard_task(id, rec, now, keep, 'purged')
  save(id, rec)
  ended = ended + 1
  return 'purged'
end

for i = 7, #ARGV, 5 do
  out[#out + 1] = judge(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]))
end
if ended > 0 then event(now, 'purged', '', 'tasks', ended, 'found', 'broker') end
return out

-- Marks tasks from outside: holds a waiting task, cancels one, or lets a held one or a dead letter run.
--
-- ARGV  1 now or ''   2 task id   3 'hold', 'cancel' or 'release'   4 retention of the mark (µs)   5 who asks
--       6 cancel: the time (µs) before which the task was surely not claimed; 0 when nobody knows
--       7 cancel: '1' if a dead letter is to be cancelled too; else it has ended
-- Reply {what happened, owner and fence if the task is running}
--       held · cancelled · marked · running (ask its owner) · released · ended · unknown · superseded, and by which task ('?': forgotten):
--       another one has had its job key since, so it must not run
--
-- hold and release accept `waiting`; release also `dead`. cancel accepts no record, `waiting` and `dead`: a first-hand copy that
-- comes later finds it ended. Without a record it answers `cancelled` when no task of the shard was claimed since that time, else
-- `marked`: then this one may have run, and been forgotten, so it is counted when a copy of it comes (see meet_mark), and is cancelled
-- from then on. Repeated, it answers the same. A running task is its owner's:
-- cancel notes what was asked for (see CANCEL_ASKED), its owner's fence decides, and the caller sends it the request.
-- A crash before it: nothing happened. After it: the mark is in the record; a released task is due.
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
-- include releasing
local now = now_us()
local id, action, keep, who = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local FAR = 4102444800000000 -- the year 2100: held until somebody releases it
local rec, newer = load(id)
if newer then return { 'newer' } end
if not rec and action == 'cancel' and is_mark(remembered(id)) then return { 'marked' } end
if not rec and (remembered(id) or has_result(id)) then return { 'ended' } end
if not rec then
  if action ~= 'cancel' then return { 'unknown' } end
  rec = new_record('s', now, '', '', 0, 0, '')
  if floor() >= tonumber(ARGV[6]) then
    rec[REASON] = 'cancelled'
    remember_end(id, rec, MARKED, keep)
    save(id, rec)
    event(now, MARKED, id, 'by', who)
    return { 'marked' }
  end
  count(rec, 'accepted')
end
local state = rec[STATE]
if state == 'r' then
  if action == 'cancel' and rec[REASON] ~= CANCEL_ASKED then
    rec[REASON] = CANCEL_ASKED
    save(id, rec)
    event(now, CANCEL_ASKED, id, 'by', who)
  end
  return { 'running', rec[OWNER], int(rec[FENCE]) }
end
if action == 'cancel' and state == 'e' and rec[REASON] == 'cancelled' then return { rec[OUTCOME] == MARKED and 'marked' or 'cancelled' } end
if state == 'e' or state == 'h' then return { 'ended' } end
if action == 'cancel' and state == 'd' and ARGV[7] ~= '1' then return { 'ended' } end

if action == 'hold' then
  if state == 'd' then return { 'ended' } end
  rec[REASON] = 'held'
  put_back(id, rec, now, FAR)
  event(now, 'held', id, 'by', who)
elseif action == 'cancel' then
  discard_task(id, rec, now, keep, 'cancelled', who)
else
  local newer_one = newer_task(id, rec)
  if newer_one then return { 'superseded', newer_one, '0' } end
  release_task(id, rec, now, who)
end
save(id, rec)
return { action == 'hold' and 'held' or action == 'cancel' and 'cancelled' or 'released' }

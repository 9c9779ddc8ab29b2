#!lua flags=no-writes
-- Reads what is known of one task, for whoever waits for it: nothing here decides anything.
--
-- ARGV  1 now or ''   2 task id   3 '1' if its result or failure is wanted
-- Reply {state, outcome, times published, reason, actor, the failure of a dead letter, what is kept of its result, floor}
--       state    '' when nothing is known of it; e also when only its id or its result is kept: then it has completed
--       outcome  a mark is `discarded`: its task does not run from then on
--       kept     see include/result.lua; '' when nothing is, or it is not wanted
--       floor    the highest fence of the shard (µs): no task was claimed in here later than that
-- include clock
-- include record
-- include end
-- include result
local id, wanted = ARGV[2], ARGV[3] == '1'
local rec, newer = load(id)
if newer then return { 'newer', '', 0, '', '', '', '', '0' } end
local kept = wanted and read_result(id) or ''
local failure = wanted and rec and rec[OUTCOME] == 'dead' and rec[RESULT] or ''
if rec then
  local outcome = rec[OUTCOME] == MARKED and 'discarded' or rec[OUTCOME]
  return { rec[STATE], outcome, rec[PUBS], rec[REASON], rec[ACTOR], failure, kept, int(floor()) }
end
local score = remembered(id)
if is_mark(score) then return { 'e', 'discarded', 0, 'cancelled', '', '', '', int(floor()) } end
local completed = score or has_result(id)
return { completed and 'e' or '', completed and 'completed' or '', 0, '', '', '', kept, int(floor()) }

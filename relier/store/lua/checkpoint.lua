#!lua
-- Keeps the checkpoint of a running task in place of the one before.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence
--       5 where: s in the record · k in a key of its own · f in a file, which is durable already   6 the bytes; of a file, its reference
-- Reply {kept, what CHECKPOINT was before if that was a file, else ''} · {refused} · {lost} · {unknown} (see astray)
--
-- Accepts only `running` under exactly this fence: a run that was given up, overtaken or closed overwrites nothing (R3). Repeated, it
-- changes nothing. A crash before it: the checkpoint before is in force. A crash after it: this one is; a file that nothing refers to is
-- swept (see relier/checkpoint_sweep.py). No allow-oom: without memory it is refused before any write, and the one before stays.
-- include clock
-- include record
-- include stats
local now = now_us()
local caller, id, fence, where, data = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local rec, newer = load(id)
local stray = astray(id, rec, newer, caller, fence)
if stray then return { stray } end
if not rec or rec[STATE] ~= 'r' or rec[FENCE] ~= fence then
  count(rec, 'refused')
  event(now, 'refused', id, 'worker', caller, 'fence', int(fence), 'what', 'checkpoint')
  return { 'refused' }
end
local before = rec[CHECKPOINT]
local kept = where == 'k' and 'k' .. #data or where .. data
if where == 'k' then
  redis.call('SET', checkpoint_key(id), data)
  rec[CHECKPOINT] = kept
else
  drop_checkpoint(id, rec)
  rec[CHECKPOINT] = kept
end
if kept ~= before then save(id, rec) end
return { 'kept', string.sub(before, 1, 1) == 'f' and before ~= kept and before or '' }

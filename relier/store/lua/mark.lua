-- Marks a task of which nothing is known as cancelled, in a shard that its id does not name: one with an idempotency key may come there.
--
-- ARGV  1 now or ''   2 task id   3 how long (µs) the mark is kept
-- Reply marked · known (there is something to cancel, or it has ended)
--
-- Accepts no record. Nothing is counted: that is done where the id says. A crash before it: nothing happened. After it: a first-hand copy that
-- comes is refused as that of an ended task. Repeated, it answers the same.
-- include clock
-- include record
-- include end
-- include result
local id = ARGV[2]
local rec, newer = load(id)
local score = remembered(id)
if rec or newer or has_result(id) or (score and not is_mark(score)) then return 'known' end
mark_as_ended(id, now_us(), tonumber(ARGV[3]))
return 'marked'

#!lua flags=allow-oom
-- Discards dead letters for good, with the reason `purged`.
--
-- ARGV  1 now or ''   2 who asks   3 how long (µs) their ids are remembered   4… pairs: task id, time (µs) of the death that is meant
--       ('' whichever)
-- Reply for each: purged · gone · pending · newer · unknown (see include/meant.lua)
--
-- Accepts `dead` only. A crash before it: they are dead letters. After it: each has ended, counted once, or was not touched. Repeated, it
-- answers `gone` and changes nothing.
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
-- include meant
local now, who, keep = now_us(), ARGV[2], tonumber(ARGV[3])
local replies = {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local rec, why = meant(id, ARGV[i + 1])
  if rec then
    discard_task(id, rec, now, keep, 'purged', who)
    save(id, rec)
  end
  replies[#replies + 1] = rec and 'purged' or why
end
return replies

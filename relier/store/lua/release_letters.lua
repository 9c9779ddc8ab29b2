-- Releases dead letters: each waits to run again, with fresh attempts and the crashes that it had.
--
-- ARGV  1 now or ''   2 who asks   3 how, for the history ('' as it was)   4 '1': 7 is a new body, of a single task
--       5… pairs: task id, time (µs) of the death that is meant ('' whichever)   7 the new body
-- Reply for each: released · gone · pending · newer · unknown (see include/meant.lua) · superseded (another task has had its job key since)
--
-- Accepts `dead` only. A crash before it: they are dead letters. After it: each is due, or was not touched. Repeated, it answers `gone`
-- and changes nothing: a letter that died again since has another time of death. It goes through without memory too: its first write removes.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include releasing
-- include meant
local now, who, how, edited = now_us(), ARGV[2], ARGV[3], ARGV[4] == '1'
local replies = {}
for i = 5, edited and 5 or #ARGV, 2 do
  local id = ARGV[i]
  local rec, why = meant(id, ARGV[i + 1])
  if rec and newer_task(id, rec) then rec, why = nil, 'superseded' end
  if rec then
    if edited then rec[BODY] = ARGV[7] end
    release_task(id, rec, now, who, how)
    save(id, rec)
  end
  replies[#replies + 1] = rec and 'released' or why
end
return replies

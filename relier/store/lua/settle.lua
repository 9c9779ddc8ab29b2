#!lua flags=allow-oom
-- Settles ended tasks of one shard; see include/settle.lua. A crash before it: the tasks' hooks are replayed by whoever inherits
-- them, or their ids stay remembered until their retention ends.
--
-- ARGV  1 now or ''   2 retention (µs)   3… triples of task id, fence, '1' if the copy's removal was confirmed; at most 100
-- Reply the number of triples
-- include clock
-- include record
-- include end
-- include settle
settle_rest(3, tonumber(ARGV[2]))
return (#ARGV - 2) / 3

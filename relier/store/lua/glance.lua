#!lua flags=no-writes
-- Reads some records of a shard without their bodies, for people: nothing here decides anything.
--
-- ARGV  1 now or ''   2… task ids
-- Reply a list of what include/row.lua tells of each that has a record
-- include clock
-- include record
-- include shown
-- include row
local now, out = now_us(), {}
for i = 2, #ARGV do
  local packed = redis.call('HGET', REC, ARGV[i])
  if packed then out[#out + 1] = row_of(ARGV[i], cmsgpack.unpack(packed), now) end
end
return out

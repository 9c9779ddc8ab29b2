#!lua flags=no-writes
-- Reads one page of a shard's records without their bodies, for people: nothing here decides anything.
--
-- ARGV  1 now or ''   2 HSCAN cursor ('0' at first)   3 about how many
-- Reply {next cursor ('0' at the end), a list of what include/row.lua tells of each}
--
-- Records may come twice, as HSCAN has it.
-- include clock
-- include record
-- include shown
-- include row
local now, scanned = now_us(), redis.call('HSCAN', REC, ARGV[2], 'COUNT', ARGV[3])
local out = {}
for i = 1, #scanned[2], 2 do
  local id, rec = scanned[2][i], cmsgpack.unpack(scanned[2][i + 1])
  out[#out + 1] = row_of(id, rec, now)
end
return { scanned[1], out }

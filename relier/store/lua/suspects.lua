#!lua flags=no-writes
-- Answers whether a worker runs a suspect in this shard (R9). Reads only.
--
-- ARGV  1 now or ''   2 worker
-- Reply 1 or 0
-- include clock
-- include record
for _, id in ipairs(redis.call('ZRANGE', own_key(ARGV[2]), 0, 99)) do
  local rec = load(id)
  if rec and rec[STATE] == 'r' and rec[OWNER] == ARGV[2] and rec[SUSPECT] then return 1 end
end
return 0

#!lua flags=no-writes
-- Reads one page of a shard's records without their bodies, for people: nothing here decides anything.
--
-- ARGV  1 now or ''   2 HSCAN cursor ('0' at first)   3 about how many
-- Reply {next cursor ('0' at the end), a list of {task id, state, outcome, reason, queue, actor, owner, attempt, crashes,
--       times published, created, granted, due or '', '1' if something will move it on, payload version}}
--       A record of a newer format has the state `newer`, and nothing else.
--
-- What will move a record on: a place in the due index, in its owner's set, in the DLQ, or among the ended that are forgotten in
-- time. Records may come twice, as HSCAN has it.
-- include clock
-- include record
-- include shown
local now, scanned = now_us(), redis.call('HSCAN', REC, ARGV[2], 'COUNT', ARGV[3])
local out = {}
for i = 1, #scanned[2], 2 do
  local id, rec = scanned[2][i], cmsgpack.unpack(scanned[2][i + 1])
  if rec[VERSION] > FORMAT then
    out[#out + 1] = { id, 'newer' }
  else
    local moves = redis.call('ZSCORE', rec[STATE] == 'd' and DLQ or rec[STATE] == 'e' and END or DUE, id)
    if rec[OWNER] ~= '' then moves = redis.call('ZSCORE', own_key(rec[OWNER]), id) end
    out[#out + 1] = { id, rec[STATE], rec[OUTCOME], rec[REASON], rec[QUEUE], rec[ACTOR], rec[OWNER], rec[ATTEMPT], rec[CRASHES],
      rec[PUBS], int(rec[CREATED] * 1000000), int(rec[GRANTED]), shown_due(id, rec, now), moves and '1' or '0',
      rec[PAYLOAD_VERSION] }
  end
end
return { scanned[1], out }

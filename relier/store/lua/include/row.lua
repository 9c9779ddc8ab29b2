-- A record without its body, for people: {task id, state, outcome, reason, queue, actor, owner, attempt, crashes, times published, created,
-- granted, due or '', '1' if something will move it on, payload version}. One of a newer format has the state `newer`, and nothing else.
--
-- What will move a record on: a place in the due index, in its owner's set, in the DLQ, or among the ended that are forgotten in
-- time. Needs record, shown.
local function row_of(id, rec, now)
  if rec[VERSION] > FORMAT then return { id, 'newer' } end
  local moves = redis.call('ZSCORE', rec[STATE] == 'd' and DLQ or rec[STATE] == 'e' and END or DUE, id)
  if rec[OWNER] ~= '' then moves = redis.call('ZSCORE', own_key(rec[OWNER]), id) end
  return { id, rec[STATE], rec[OUTCOME], rec[REASON], rec[QUEUE], rec[ACTOR], rec[OWNER], rec[ATTEMPT], rec[CRASHES],
    rec[PUBS], int(rec[CREATED] * 1000000), int(rec[GRANTED]), shown_due(id, rec, now), moves and '1' or '0',
    rec[PAYLOAD_VERSION] }
end

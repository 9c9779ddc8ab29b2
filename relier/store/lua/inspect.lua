#!lua flags=no-writes
-- Reads records, for people: nothing here decides anything.
--
-- ARGV  1 now or ''   2… task ids
-- Reply for each id: an empty list, {'e'} for an ended task of which only the id is kept, or {state, fence, owner, granted, sticky, suspect, attempt, crashes, max resurrections,
--       times published, created, queue, actor, outcome, reason, fingerprint, result or failure, payload version, body, due or '',
--       runs: a list of {worker, start, end, outcome, detail}, where its checkpoint is (see include/record.lua; its size in place of bytes),
--       another task that has its idempotency key, or completed under it, how many of its last failures in a row were identical}
-- include clock
-- include record
-- include end
-- include shown
local function key_owner(id, rec)
  local packed = rec[TASK_KEYS] ~= '' and redis.call('GET', string.sub(REC, 1, -4) .. 'idem:' .. rec[TASK_KEYS][1])
  local owner = packed and cmsgpack.unpack(packed)[3]
  return owner and owner ~= id and owner or ''
end

local now, out = now_us(), {}
for i = 2, #ARGV do
  local rec = load(ARGV[i])
  if not rec then
    local score = remembered(ARGV[i])
    out[#out + 1] = score and not is_mark(score) and { 'e' } or {}
  else
    local runs = {}
    for _, run in ipairs(rec[RUNS] or {}) do
      runs[#runs + 1] = { run[1], int(run[2]), int(run[3]), run[4], run[5] }
    end
    out[#out + 1] = { rec[STATE], int(rec[FENCE]), rec[OWNER], int(rec[GRANTED]), rec[STICKY] and 1 or 0, rec[SUSPECT] and 1 or 0,
      rec[ATTEMPT], rec[CRASHES], rec[MAX_CRASHES], rec[PUBS], int(rec[CREATED] * 1000000), rec[QUEUE], rec[ACTOR], rec[OUTCOME],
      rec[REASON], rec[FINGERPRINT], rec[RESULT], rec[PAYLOAD_VERSION], rec[BODY], shown_due(ARGV[i], rec, now), runs,
      string.sub(rec[CHECKPOINT], 1, 1) == 's' and 's' .. #rec[CHECKPOINT] - 1 or rec[CHECKPOINT],
      key_owner(ARGV[i], rec), rec[ALIKE] }
  end
end
return out

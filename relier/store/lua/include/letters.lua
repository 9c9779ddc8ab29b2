-- Dead letters: every way into the DLQ is to_dlq, every way out is leave_dlq. The caller saves or ends the record itself, in the
-- same script, so that a letter and its record are never apart.
--   dlq      zset  task id -> time of its dead-lettering (µs): which tasks are dead letters
--   letters  hash  task id -> a short summary: what lists, groups and filters need, so that none of them reads whole records. It only
--            tells, it decides nothing. A letter that an earlier version left has none: then `summary` makes it from the record.
local LETTERS = string.sub(REC, 1, -4) .. 'letters'

-- A summary is a cmsgpack array. Times are µs, but for L_CREATED (s): when the task's record began. L_MESSAGE: the beginning of what it died of.
local LETTER_FORMAT, MESSAGE_KEPT = 1, 120
local L_VERSION, L_ACTOR, L_QUEUE, L_REASON, L_FINGERPRINT, L_DIED, L_ATTEMPTS, L_CRASHES, L_PAYLOAD_VERSION, L_MESSAGE, L_CREATED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

-- On one line, and cut between two characters.
local function beginning(text)
  text = string.gsub(text, '%s+', ' ')
  if #text <= MESSAGE_KEPT then return text end
  return (string.gsub(string.sub(text, 1, MESSAGE_KEPT), '[\192-\247][\128-\191]*$', ''))
end

-- Returns the text of a failure as hooks.encode_failure wrote it; '' when the application's encoder is not ours.
local function failure_text(encoded)
  local ok, failure = pcall(cjson.decode, encoded)
  if not ok or type(failure) ~= 'table' or type(failure.message) ~= 'string' then return '' end
  return tostring(failure.type) .. ': ' .. failure.message
end

local function summary(rec, died, message)
  local runs = rec[RUNS] or {}
  message = message or (#runs > 0 and runs[#runs][5]) or failure_text(rec[RESULT])
  return { LETTER_FORMAT, rec[ACTOR], rec[QUEUE], rec[REASON], rec[FINGERPRINT], died, rec[ATTEMPT], rec[CRASHES],
           rec[PAYLOAD_VERSION], beginning(message), rec[CREATED] }
end

-- `message`: what it died of, for people.
local function to_dlq(id, rec, now, reason, message)
  rec[OUTCOME], rec[REASON] = 'dead', reason
  redis.call('ZADD', DLQ, int(now), id)
  redis.call('HSET', LETTERS, id, cmsgpack.pack(summary(rec, now, message)))
  redis.call('ZREM', DUE, id)
  count('dead')
  event(now, 'dead', id, 'reason', reason)
end

local function leave_dlq(id)
  redis.call('ZREM', DLQ, id)
  redis.call('HDEL', LETTERS, id)
  count('dlq_left')
end

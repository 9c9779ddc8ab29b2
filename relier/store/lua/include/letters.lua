-- Dead letters: every way into the DLQ is to_dlq, every way out is leave_dlq. The caller saves or ends the record itself, in the
-- same script, so that a letter and its record are never apart.
--   dlq      zset  task id -> time of its dead-lettering (µs): which tasks are dead letters
--   letters  hash  task id -> a short summary: what lists, groups and filters need, so that none of them reads whole records. It only
--            tells, it decides nothing. A letter that an earlier version left has none: then `summary` makes it from the record.
local LETTERS = string.sub(REC, 1, -4) .. 'letters'

-- How many letters there are of each kind, for people and tools.
--   letters:by  hash  queue LF actor LF reason -> how many of those that have a summary; `(other)`: further kinds than KINDS_KEPT
-- An older version's scripts do not count, so it may be off while one runs; it begins anew whenever the DLQ is empty.
local LETTERS_BY, KINDS_KEPT, OTHER_KIND = LETTERS .. ':by', 200, '(other)'
local function count_kind(queue, actor, reason, by)
  local kind = queue .. '\n' .. actor .. '\n' .. reason
  if redis.call('HEXISTS', LETTERS_BY, kind) == 0 and (by < 0 or redis.call('HLEN', LETTERS_BY) >= KINDS_KEPT) then kind = OTHER_KIND end
  if redis.call('HINCRBY', LETTERS_BY, kind, by) <= 0 then redis.call('HDEL', LETTERS_BY, kind) end
end

-- A summary is a cmsgpack array. Times are µs, but for L_CREATED (s): when the task's record began. L_MESSAGE: the beginning of what it died of.
local LETTER_FORMAT, MESSAGE_KEPT = 1, 120
local L_VERSION, L_ACTOR, L_QUEUE, L_REASON, L_FINGERPRINT, L_DIED, L_ATTEMPTS, L_CRASHES, L_PAYLOAD_VERSION, L_MESSAGE, L_CREATED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

-- Returns the text of a failure as hooks.encode_failure wrote it; '' when the application's encoder is not ours.
local function failure_text(encoded)
  local ok, failure = pcall(cjson.decode, encoded)
  if not ok or type(failure) ~= 'table' or type(failure.message) ~= 'string' then return '' end
  return tostring(failure.type) .. ': ' .. failure.message
end

local function summary(rec, died, message)
  -- On one line, and cut between two characters.
  local function beginning(text)
    text = string.gsub(text, '%s+', ' ')
    if #text <= MESSAGE_KEPT then return text end
    return (string.gsub(string.sub(text, 1, MESSAGE_KEPT), '[\192-\247][\128-\191]*$', ''))
  end

  local runs = rec[RUNS] or {}
  message = message or (#runs > 0 and runs[#runs][5]) or failure_text(rec[RESULT])
  return { LETTER_FORMAT, rec[ACTOR], rec[QUEUE], rec[REASON], rec[FINGERPRINT], died, rec[ATTEMPT], rec[CRASHES],
           rec[PAYLOAD_VERSION], beginning(message), rec[CREATED] }
end

-- Notices: the actor that ON_DEAD names is told in the same step that dead-letters, by a task of its own in this shard. So no crash
-- loses one. Its id is made of the task's and of the fence under which that died: no repetition makes a second one, and the next death of
-- a released task makes another. Until its first claim its body is the dead record as it was then, which may be released meanwhile;
-- whoever publishes it makes the message (relier/notices.py). A notice that dies itself tells nobody.
-- tests/model/notices.py searches for what happens without each of these rules.
local NOTICE = '\0relier notice 1\n'
local function is_notice(id) return string.find(id, '%.dead%.%d+$') ~= nil end
local function has_notice_body(rec) return string.sub(rec[BODY], 1, #NOTICE) == NOTICE end

-- Returns the notice's id; nil when there is none.
local function notify(id, rec, now)
  local queue, actor, version, crashes = string.match(rec[ON_DEAD], '^(.-)\n(.-)\n(%d+)\n(%d+)$')
  if not queue then return nil end
  local notice_id = id .. '.dead.' .. int(rec[FENCE])
  if redis.call('HEXISTS', REC, notice_id) == 1 or remembered(notice_id) then return notice_id end

  -- Texts, each behind its length: bodies and failures may hold any bytes.
  local function framed(texts)
    local out = {}
    for i, text in ipairs(texts) do out[i] = #text .. ':' .. text end
    return table.concat(out)
  end

  -- The dead record, as relier/store/notices.py reads it.
  local function dead_record()
    local at = rec[CHECKPOINT]
    if string.sub(at, 1, 1) == 's' then at = 's' .. int(#at - 1) end
    local texts = { id, rec[ACTOR], rec[QUEUE], rec[REASON], rec[FINGERPRINT], int(rec[FENCE]), int(rec[ATTEMPT]), int(rec[CRASHES]),
                    int(rec[MAX_CRASHES]), int(rec[PAYLOAD_VERSION]), int(rec[CREATED] * 1000000), int(now), int(rec[ALIKE]), at,
                    rec[RESULT], rec[BODY] }
    for _, run in ipairs(rec[RUNS] or {}) do
      for _, text in ipairs({ run[1], int(run[2]), int(run[3]), run[4], run[5] }) do texts[#texts + 1] = text end
    end
    return framed(texts)
  end

  local notice = new_record('s', now, queue, actor, tonumber(crashes), tonumber(version), NOTICE .. dead_record())
  notice[FENCE], notice[STICKY] = next_fence(now), true
  save(notice_id, notice)
  set_due(notice_id, AT_ONCE)
  count(notice, 'accepted')
  count(notice, 'notices')
  return notice_id
end

-- `message`: what it died of, for people.
local function to_dlq(id, rec, now, reason, message)
  rec[OUTCOME], rec[REASON] = 'dead', reason
  redis.call('ZADD', DLQ, int(now), id)
  if redis.call('HSET', LETTERS, id, cmsgpack.pack(summary(rec, now, message))) == 1 then
    count_kind(rec[QUEUE], rec[ACTOR], reason, 1)
  end
  redis.call('ZREM', DUE, id)
  count(rec, 'dead', 1, 'dead:' .. reason, 1)
  local notice_id = rec[ON_DEAD] ~= '' and notify(id, rec, now)
  if notice_id then
    event(now, 'dead', id, 'reason', reason, 'told', notice_id)
  else
    event(now, 'dead', id, 'reason', reason)
  end
end

local function leave_dlq(id, rec)
  local packed = redis.call('HGET', LETTERS, id)
  if packed then
    local letter = cmsgpack.unpack(packed)
    count_kind(letter[L_QUEUE], letter[L_ACTOR], letter[L_REASON], -1)
    redis.call('HDEL', LETTERS, id)
  end
  redis.call('ZREM', DLQ, id)
  if redis.call('EXISTS', DLQ) == 0 then redis.call('DEL', LETTERS_BY) end
  count(rec, 'dlq_left')
end

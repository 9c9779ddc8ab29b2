#!lua flags=no-writes
-- Reads the summaries of dead letters, for people and tools: nothing here decides anything.
--
-- ARGV  1 now or ''   2… task ids
-- Reply for each: an empty list when it is no dead letter any more, or {time of death, actor, queue, reason, fingerprint, attempts, crashes,
--       payload version, message, created (µs)}
-- include clock
-- include record
-- include letters
-- include letter_of
local out = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local score = redis.call('ZSCORE', DLQ, id)
  local letter = score and letter_of(id, redis.call('HGET', LETTERS, id), tonumber(score))
  out[#out + 1] = letter and { int(tonumber(score)), letter[L_ACTOR], letter[L_QUEUE], letter[L_REASON], letter[L_FINGERPRINT],
    letter[L_ATTEMPTS], letter[L_CRASHES], letter[L_PAYLOAD_VERSION], letter[L_MESSAGE], int(letter[L_CREATED] * 1000000) } or {}
end
return out

#!lua flags=no-writes
-- Reads dead letters with everything that another store needs to have them too: nothing here decides anything.
--
-- ARGV  1 now or ''   2 how many bytes of bodies, failures and checkpoints at most: of those beyond nothing is told, but for the first
--       3… task ids
-- Reply for each of the first ones: {time of death, actor, queue, reason, fingerprint, attempts, crashes, max resurrections, payload
--       version, created (s), 1 if it is a suspect, fence, body, failure, where its checkpoint is ('', s: here, f: in a file), its bytes or
--       its reference, queue and actor of on_dead, digest of its job key, runs: a list of {worker, start, end, outcome, detail},
--       how many of its last failures were alike};
--       an empty list when it is no dead letter any more, or a newer version's
-- include clock
-- include record
local room, out = tonumber(ARGV[2]), {}

local function checkpoint_of(id, rec)
  local where = string.sub(rec[CHECKPOINT], 1, 1)
  if where == 'k' then return 's', redis.call('GET', checkpoint_key(id)) or '' end
  return where, string.sub(rec[CHECKPOINT], 2)
end

for i = 3, #ARGV do
  local id = ARGV[i]
  local score = redis.call('ZSCORE', DLQ, id)
  local rec = score and load(id)
  local entry = {}
  if rec then
    local where, checkpoint = checkpoint_of(id, rec)
    local runs = {}
    for _, run in ipairs(rec[RUNS] or {}) do runs[#runs + 1] = { run[1], int(run[2]), int(run[3]), run[4], run[5] } end
    room = room - #rec[BODY] - #rec[RESULT] - #checkpoint
    if room < 0 and #out > 0 then break end
    entry = { int(tonumber(score)), rec[ACTOR], rec[QUEUE], rec[REASON], rec[FINGERPRINT], rec[ATTEMPT], rec[CRASHES], rec[MAX_CRASHES],
      rec[PAYLOAD_VERSION], int(rec[CREATED]), rec[SUSPECT] and 1 or 0, int(rec[FENCE]), rec[BODY], rec[RESULT], where, checkpoint,
      rec[ON_DEAD], rec[JOB], runs, rec[ALIKE] }
  end
  out[#out + 1] = entry
end
return out

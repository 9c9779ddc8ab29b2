#!lua flags=allow-oom
-- Decides whether the caller may run the copy of a task that it holds.
--
-- KEYS  see include/record.lua
-- ARGV  1 now or ''   2 caller   3 task id   4 nonce   5 fence in the copy's stamp (0: a first-hand copy)
--       6 '1' if the caller has its suspect slot free for this task   7 '1' if a follow-up (other copies may come)
--       8 max resurrections   9 queue   10 actor   11 payload version   12 body   13 retention (µs)
--       14 how many snapshots the caller has taken   15 the task's protections (JSON), '' when it has none   16 when the copy's message was made (µs, its
--       producer's clock; 0: unknown)   17… settles
--         key    its idempotency key: k its digest, on what a duplicate does, hooks and needs: 1 if hooks follow a completion, and if
--                they need its result; ttl and res (ms), flight and keep (µs); see include/idempotency.lua
--         job    its job key: k the digest, n the rank of its push; see include/job.lua
--         dead        who is told when it is dead (see include/record.lua)
--         unsigned    1 if nobody has signed it and it is accepted all the same
--         span        the trace context of this run
-- Reply {verdict, fence, attempt, crashes, suspect, result, outcome, checkpoint, trace context of the run before}
--       granted · taken-over (granted, after a crash) · replay (run only the hooks) · duplicate (the same, with the
--       result of the task that completed under its key) · busy · stale · settled · held ·
--       fenced (the caller was declared dead) · newer (a newer format; leave it)
--
-- Accepts every state. A crash right before it: nothing happened, the broker still has the copy. A crash right after it: the
-- record is `running` under a dead owner; bury finds it through the owner's set. A lost reply: the same nonce gets the same grant.
-- Whoever is refused may acknowledge its copy: the record holds the body, or the task has ended (R4). Then the reply has the record's
-- age (µs) as its second part: one that is old enough is on disk, whatever became of it last.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include ready
-- include end
-- include result
-- include settle
-- include idempotency
-- include lots
-- include discarding
-- include purging
-- include crash
-- include job
local now = now_us()
local caller, id, nonce, seen = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local slot_free, max_crashes, keep = ARGV[6] == '1', tonumber(ARGV[8]), tonumber(ARGV[13])
local protections = ARGV[15] ~= '' and cjson.decode(ARGV[15]) or {}
local key, job = protections.key, protections.job
local span_before = ''

settle_rest(17, keep)
if buried(caller) then return { 'fenced' } end
local rec, newer = load(id)
if newer then return { 'newer' } end

local function reply(verdict)
  return { verdict, int(rec[FENCE]), rec[ATTEMPT], rec[CRASHES], rec[SUSPECT] and 1 or 0, rec[RESULT], rec[OUTCOME],
           rec[CHECKPOINT], span_before }
end

local function own(state)
  disown(id, rec)
  rec[STATE], rec[FENCE], rec[OWNER], rec[NONCE], rec[GRANTED] = state, next_fence(now, math.max(seen, rec[FENCE])), caller, nonce, now
  if seen > 0 then rec[STICKY] = true end
  rec[DECLINED] = 0
  span_before, rec.span = rec.span or '', protections.span
  redis.call('ZREM', DUE, id)
  redis.call('ZADD', OWN, ARGV[14], id)
  save(id, rec)
end

-- Another task completed under its key: only the hooks are left to run. Those that need a result which was not kept cannot.
local function repeat_of(owner)
  local kept = kept_result(owner)
  count(rec, 'idempotency_hits')
  if kept or key.needs ~= 1 then
    rec[OUTCOME], rec[RESULT] = 'completed', kept or ''
    if owner ~= id then refer_result(id, owner, key.res) end
    count(rec, 'completed')
  else
    rec[GRANTED], rec[RESULT] = now, ''
    local why = 'The result under its idempotency key was not kept; its hooks need it.'
    remember_run(rec, caller, now, 'failed', why)
    to_dlq(id, rec, now, 'ResultMissing', why)
  end
  own('h')
  return reply('duplicate')
end

local function stand_aside()
  if key.on ~= 'drop' then
    keys().await(id, rec, now)
  else
    keys().discard_duplicate(id, rec)
  end
  save(id, rec)
  return { key.on ~= 'drop' and 'held' or 'settled' }
end

-- A new task is counted with its first run's wait, or by itself when it has no run.
local is_new = false
local function accept(...)
  if is_new then count(rec, 'accepted', 1, ...) elseif ... then note(rec, ...) end
  is_new = false
end

-- Notes what the run that begins now waited for.
local function note_start()
  local runs, ready = rec[RUNS] or {}, rec.ready
  local last = runs[#runs]
  if last and last[4] == 'crashed' then
    note(rec, observed(RESURRECTIONS, now - last[3]))
  end
  if not ready then ready = seen == 0 and tonumber(ARGV[16]) or ready_since(id, rec, now) end
  rec.ready = nil
  if ready and ready > 0 then accept(observed(WAITS, now - ready)) else accept() end
end

local function grant(verdict)
  if is_purged(rec, now, tonumber(ARGV[16])) then
    accept()
    discard_task(id, rec, now, keep, 'purged', 'mark')
    save(id, rec)
    return { 'settled' }
  end
  rec[ON_DEAD] = protections.dead and not is_notice(id) and protections.dead or ''
  if has_notice_body(rec) then rec[BODY] = ARGV[12] end
  local answer, owner
  if asked_to_end(rec) then
    end_as_asked(id, rec, now, keep, caller)
    save(id, rec)
    return { 'settled' }
  end
  if key then answer, owner = keys().ask(id, rec, key, now) end
  if answer then accept() end
  if answer == 'completed' then return repeat_of(owner) end
  if answer == 'held' then return stand_aside() end
  if job and rec[JOB] == '' then
    accept()
    if not jobs().join(id, rec, job, now, keep) then return { 'settled' } end
  end
  if rec[REASON] == PUSHED then rec[REASON] = '' end
  note_start()
  own('r')
  if protections.unsigned then count(rec, 'unsigned') end
  return reply(verdict)
end

local function refuse(verdict)
  if not rec[STICKY] then
    rec[STICKY] = true
    save(id, rec)
  end
  return { verdict, int(math.max(0, now - rec[CREATED] * 1000000)) }
end

-- A suspect runs alone in its process; without a free slot it waits in the store and is offered again.
local function hold()
  put_back(id, rec, now, due_time(now) + 250000)
  save(id, rec)
  return { 'held' }
end

if not rec then
  local has_ended, kept = job and jobs().has_ended(id, job), remembered(id)
  if is_mark(kept) and not has_ended then meet_mark(id, rec, now, seen, ARGV[9], ARGV[10]) end
  if kept or (seen > 0 and seen <= floor()) or has_ended then return { 'settled' } end
  rec = new_record('s', now, ARGV[9], ARGV[10], max_crashes, tonumber(ARGV[11]), ARGV[12])
  rec[STICKY] = ARGV[7] == '1'
  if seen > 0 then event(now, 'unknown copy', id, 'fence', int(seen)) end
  is_new = true
  return grant('granted')
end

local state = rec[STATE]
if seen > rec[FENCE] and (state == 'r' or state == 's' or state == 'd') then
  event(now, 'store lost data', id, 'fence', int(seen))
  if state == 'd' then
    leave_dlq(id, rec)
    rec[STATE], rec[OUTCOME] = 's', ''
  end
  rec[BODY] = ARGV[12]
  return grant('granted')
end

if state == 'r' then
  if rec[OWNER] == caller and rec[NONCE] == nonce then return reply('granted') end
  if not buried(rec[OWNER]) then return refuse('busy') end
  if crashed(id, rec, now) then
    save(id, rec)
    return { 'settled', 0, rec[CRASHES] }
  end
  rec[STICKY] = true
  count(rec, 'resurrections')
  if rec[SUSPECT] then return hold() end -- its copy's stamp does not say yet how alone it has to run
  return grant('taken-over')
elseif state == 'h' then
  if rec[OWNER] == caller and rec[NONCE] == nonce then return reply('replay') end
  if rec[OWNER] ~= '' and not buried(rec[OWNER]) then return refuse('busy') end
  rec[STICKY] = true
  own('h')
  count(rec, 'replays')
  event(now, 'replay', id, 'worker', caller)
  return reply('replay')
elseif state == 's' then
  if not is_current(rec, seen) then return refuse('stale') end
  if rec[SUSPECT] and not slot_free then return hold() end
  return grant('granted')
end
if rec[OUTCOME] == MARKED and not (job and jobs().has_ended(id, job)) then meet_mark(id, rec, now, seen, ARGV[9], ARGV[10]) end
return refuse('settled')

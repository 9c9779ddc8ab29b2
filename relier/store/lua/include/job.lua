-- One job key: which of the tasks that were pushed under it is the newest. The newest wins: its push ends the older one, wherever that is.
--   job:<digest>  string: {format, the newest task, its rank, whether copies of older ones may come}, packed. It has no time to live
--                 until its task has ended; then it goes with it, or a week later when copies of older ones may come (see leave_job)
--
-- A rank is a fence of the push: whoever pushed later has a higher one, also after the store lost data. It is in the stamp of first-hand
-- copies (`n`); a copy that the store published has its fence in its place, which is higher than its rank and lower than that of whoever came after.
--
-- Why no older one runs. Its record ended in the script that gave the key away; a run of it has lost its fence. A copy that finds no record
-- any more asks for the key with its rank. So does a run that the store lost, before it is restored. A dead letter is only released while the entry names it.
-- tests/model/job_keys.py searches for what happens without each of these rules.
--
-- Needs record, letters, due_time, end, result, idempotency, discarding. Made when a task has a key: most have none.
local jobs_made
local function jobs()
  if jobs_made then return jobs_made end

  local function supersede(id, rec, now, keep, cancels, by)
    if rec[STATE] == 'r' and cancels then rec[FENCE] = next_fence(now, rec[FENCE]) end -- Its worker finds it lost, should nobody tell.
    rec[STICKY] = true -- Whoever asks is told why it ended, also when its last run is settled afterwards.
    discard_task(id, rec, now, keep, 'superseded', by)
    save(id, rec)
  end

  -- Gives the key to a task, and ends the one that had it, but for one that has ended. Returns that one, and who ran it.
  local function give_to(id, digest, rank, late, now, keep, cancels)
    local entry = job_entry(digest)
    local older = entry and entry[J_NEWEST] ~= id and load(entry[J_NEWEST])
    local superseded = older and (older[STATE] == 's' or older[STATE] == 'r' or older[STATE] == 'd')
    local owner = superseded and older[OWNER] or ''
    late = late or superseded or (entry and entry[J_LATE]) or false
    redis.call('SET', job_name(digest), cmsgpack.pack({ JOB_FORMAT, id, rank, late }))
    if not superseded then return '', '' end
    supersede(entry[J_NEWEST], older, now, keep, cancels, id)
    return entry[J_NEWEST], owner
  end

  -- Asks for the key in the name of a task without a record, or whose record lacks it: the store lost data, or the task has long ended.
  -- Returns false when it may not run; then it is ended.
  local function join(id, rec, job, now, keep)
    local entry = job_entry(job.k)
    rec[JOB] = job.k
    if entry and (entry[J_VERSION] > JOB_FORMAT or job.n <= entry[J_RANK]) then
      discard_task(id, rec, now, keep, 'superseded', entry[J_NEWEST])
      save(id, rec)
      return false
    end
    give_to(id, job.k, job.n, true, now, keep, true)
    return true
  end

  -- Whether a task without a record had the key last: it has ended, and was forgotten.
  local function has_ended(id, job)
    local entry = job_entry(job.k)
    return entry and entry[J_NEWEST] == id
  end

  jobs_made = { give_to = give_to, join = join, has_ended = has_ended }
  return jobs_made
end

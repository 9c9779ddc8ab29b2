-- Releasing: a dead letter, or a task that was held, waits for its publication, due at once but behind what recovers from a crash.
--
-- Attempts begin anew, and so does the row of identical failures. CRASHES stays as it is, so that a release is no way around max_resurrections: only `crashed` looks at it, after a
-- run, so one run at least is given, and the next crash over the limit makes a dead letter again. EXEMPT: purge marks that were set
-- before do not concern it. The caller has seen that the task may be released, and saves the record in the same script: a crash before
-- that changed nothing, after it the task is due. Needs record, letters, due_time.
local function release_task(id, rec, now, who, how)
  if rec[STATE] == 'd' then
    leave_dlq(id, rec)
    rec[ATTEMPT], rec[ALIKE], rec[OUTCOME] = 0, 0, ''
  end
  rec[REASON], rec[GRANTED], rec[EXEMPT] = '', now, now
  remember_run(rec, who, now, 'released', how)
  put_back(id, rec, now, due_time(now))
  event(now, 'released', id, 'by', who)
end

-- Returns the task that has had the task's job key since, '?' when that is forgotten; nil when the task may run again.
local function newer_task(id, rec)
  if rec[JOB] == '' then return nil end
  local entry = job_entry(rec[JOB])
  return not entry and '?' or (entry[J_NEWEST] ~= id and entry[J_NEWEST] or nil)
end

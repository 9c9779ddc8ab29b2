-- Names the folder in which this store's checkpoints are, under RELIER_CHECKPOINT_DIR: the first name that is proposed, ever after.
--
-- ARGV  1 now or ''   2 a name, or '' to only ask
-- Reply the name; '' when there is none
-- include clock
-- include fleet
if ARGV[2] ~= '' then redis.call('HSETNX', META, 'checkpoints', ARGV[2]) end
return redis.call('HGET', META, 'checkpoints') or ''

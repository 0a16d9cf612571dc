-- What becomes of a joint append, decided once and for all; see joint.py. Key: the notes. Arguments: step, which append, and
-- to 'begin': nothing; to 'decide': what it writes; to 'give up': for how many milliseconds it has to have been open.
-- Returns 1 where it is to be written, or may be yet. What was decided is written again, to be confirmed again.
local step, id, given = take(), take(), take()
if step == 'begin' then
  redis.call('HSET', KEYS[1], id, number(now_ms()))
  return 1
end
local known = redis.call('HGET', KEYS[1], id)
if not known then
  return 0 -- it was given up, or is done
end
local began = tonumber(known)
if began and step == 'give up' then
  if now_ms() - began < tonumber(given) then
    return 1
  end
  redis.call('HDEL', KEYS[1], id)
  return 0
end
redis.call('HSET', KEYS[1], id, began and given or known)
return 1

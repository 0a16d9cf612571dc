-- Gives a lease back, or takes it over. Key: the lease. Arguments: what it holds; what it is to hold ('': nothing),
-- for how many milliseconds.
if redis.call('GET', KEYS[1]) ~= take() then
  return 0
end
local after = take()
if after == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], after, 'PX', take())
end
return 1

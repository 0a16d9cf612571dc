-- Gives streams free that a joint append had reserved. Key: reserved. Arguments: which append; the streams.
local id = take()
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == id then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1

-- Notes that somebody decides by what he reads in a stream: nobody erases it meanwhile. Keys: reading of the stream;
-- reserved. Arguments: the stream; who; for how many milliseconds, at most.
local stream, who, ms = take(), take(), tonumber(take())
local by = redis.call('HGET', KEYS[2], stream)
if by then
  return 'reserved ' .. by .. ' ' .. stream
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', number(now_ms()))
redis.call('ZADD', KEYS[1], number(now_ms() + ms), who)
redis.call('PEXPIRE', KEYS[1], number(2 * ms))
return 1

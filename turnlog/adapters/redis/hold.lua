-- Notes that somebody decides by what he reads in a stream: nobody erases it meanwhile. Key: reading of the stream.
-- Arguments: who; for how many milliseconds, at most.
local who, ms = take(), tonumber(take())
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', number(now_ms()))
redis.call('ZADD', KEYS[1], number(now_ms() + ms), who)
redis.call('PEXPIRE', KEYS[1], number(2 * ms))
return 1

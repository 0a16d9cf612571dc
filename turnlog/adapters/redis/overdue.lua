-- Sessions whose time is over. Key: deadlines. Argument: how many, at most.
return redis.call('ZRANGE', KEYS[1], '-inf', number(now_ms()), 'BYSCORE', 'LIMIT', 0, take())

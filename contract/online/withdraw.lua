-- End a request for which nobody waits any more. Its entry in the stream is dropped by the worker that reads it.
--
-- KEYS[3] payload   ARGV: id

close(ARGV[1])
redis.call('DEL', KEYS[3])

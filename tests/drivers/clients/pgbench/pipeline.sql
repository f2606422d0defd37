\set token random(1, 1000000000)
\startpipeline
BEGIN;
SELECT set_config('app.token', :token::text, true);
SELECT 1 / (current_setting('app.token')::bigint = :token)::int;
SELECT aid FROM pgbench_accounts WHERE aid = :token % 100000 + 1;
COMMIT;
SELECT :token::bigint;
\endpipeline

\set token random(1, 1000000000)
BEGIN;
SELECT coalesce(nullif(current_setting('app.token', true), ''), 'none') = 'none' AS clean, set_config('app.token', :token::text, true) AS first \gset
SELECT current_setting('app.token')::bigint AS token_back, :token::bigint + 1 AS next \gset
COMMIT;
\if :first <> :token or :token_back <> :token or :next <> :token + 1 or not :clean
SELECT 'another reply than this client asked for' / 0;
\endif

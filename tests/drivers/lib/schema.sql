-- What the clients work on. Each client has its own rows and tells them by its name.
set role app;
create table work (client text, token text, n int);
create index on work (client, token);
create type mood as enum ('calm', 'busy');
create type place as (name text, mood mood);

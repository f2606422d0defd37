# DBD::Pg: statements that become named in their second run, COPY, asynchronous queries and their cancel.
use strict;
use warnings;
use utf8;
use DBI;

my $failed = 0;

sub step {
    my ($name, $step) = @_;
    if (eval { $step->(); 1 }) {
        print "ok $name\n";
        return;
    }
    $failed = 1;
    (my $why = $@) =~ s/\n/ /g;
    print "FAIL $name: $why\n";
}

sub equal {
    my ($expected, $got) = @_;
    die "expected $expected, got $got" if $expected ne $got;
}

# It reads the PG* variables.
sub connected { DBI->connect('dbi:Pg:', undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1, @_ }) }

for my $prepare (0, 1) {
    step("statements with pg_server_prepare=$prepare", sub {
        my $db = connected(pg_server_prepare => $prepare);
        my $statement = $db->prepare('select ?::int + 1, ?::text');
        for my $i (1 .. 30) {
            $statement->execute($i, "it's");
            equal($i + 1 . "it's", join '', @{ $statement->fetchrow_arrayref });
            $statement->finish;
        }
    });
}

# DBD::Pg frees a statement with DEALLOCATE.
step('statements_are_deallocated', sub {
    my $db = connected();
    for my $i (1 .. 30) {
        my $statement = $db->prepare("select $i + ?::int");
        for my $k (1 .. 3) {
            $statement->execute($k);
            equal($i + $k, $statement->fetchall_arrayref->[0][0]);
        }
    }
});

step('errors_in_the_middle', sub {
    my $db = connected();
    for my $i (1 .. 10) {
        $db->begin_work;
        $db->do('insert into work values (?, ?, ?)', undef, 'perl', 'gone', $i);
        equal('22012', eval { $db->do('select 1 / ?::int', undef, 0); 1 } ? 'no error' : $db->state);
        $db->rollback;
        equal(0, $db->selectrow_array("select count(*) from work where client = 'perl'"));
    }
});

step('copies', sub {
    my $db = connected(AutoCommit => 0);
    $db->do('copy work from stdin');
    $db->pg_putcopydata("perl\tcopy\t$_\n") for 1 .. 2000;
    $db->pg_putcopyend;
    equal(2000, $db->selectrow_array("select count(*) from work where client = 'perl'"));
    $db->rollback;
    $db->disconnect;
});

step('cancels', sub {
    my $db = connected();
    $db->do('select pg_sleep(15)', { pg_async => 1 });
    select undef, undef, undef, 0.3;
    my $start = time;
    $db->pg_cancel;
    die 'the cancel took long' if time - $start > 8;
    equal(1, $db->selectrow_array('select 1'));
    die 'no ping' unless $db->ping;
});

exit $failed;

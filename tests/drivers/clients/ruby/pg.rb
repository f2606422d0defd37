# Ruby's pg: prepared statements, pipeline mode, COPY, cancel, and threads.
require 'pg'

$failed = false

def step(name)
  yield
  puts "ok #{name}"
rescue StandardError => e
  $failed = true
  puts "FAIL #{name}: #{e.class} #{e.message.tr("\n", ' ')}"
end

def equal(expected, got)
  raise "expected #{expected.inspect}, got #{got.inspect}" unless expected == got
end

# It reads the PG* variables.
def connected
  c = PG.connect
  yield c
ensure
  c&.close
end

step 'prepared_statements_are_reused' do
  connected do |c|
    c.prepare('s', 'select $1::int, $2::text')
    50.times do |i|
      equal [[i.to_s, "it's ä"]], c.exec_prepared('s', [i, "it's ä"]).values
      equal [[i.to_s]], c.exec_params('select $1::int', [i]).values
    end
    equal 1, c.describe_prepared('s').ftype(0) > 0 ? 1 : 0
  end
end

step 'errors_in_the_middle' do
  connected do |c|
    10.times do |i|
      begin
        c.transaction do
          c.exec_params('insert into work values ($1, $2, $3)', ['ruby', 'gone', i])
          c.exec_params('select 1 / $1::int', [0])
        end
        raise 'no error'
      rescue PG::DivisionByZero
        equal '0', c.exec("select count(*) from work where client = 'ruby'").getvalue(0, 0)
      end
    end
  end
end

step 'pipelines' do
  connected do |c|
    c.enter_pipeline_mode
    30.times { |i| c.send_query_params('select $1::int', [i]) }
    c.pipeline_sync
    got = []
    until (result = c.get_result)&.result_status == PG::PGRES_PIPELINE_SYNC
      got << result.getvalue(0, 0).to_i if result
    end
    c.exit_pipeline_mode
    equal (0...30).to_a, got
  end
end

step 'copies' do
  connected do |c|
    c.transaction do
      c.copy_data('copy work from stdin') { 2000.times { |i| c.put_copy_data("ruby\tcopy\t#{i}\n") } }
      got = []
      c.copy_data("copy (select n from work where client = 'ruby' order by n) to stdout") do
        while (row = c.get_copy_data) do got << row.to_i end
      end
      equal (0...2000).to_a, got
      c.exec("delete from work where client = 'ruby'")
    end
  end
end

step 'cancels' do
  connected do |c|
    c.send_query('select pg_sleep(15)')
    sleep 0.3
    c.cancel
    begin
      c.get_last_result
      raise 'not cancelled'
    rescue PG::QueryCanceled
      equal '1', c.exec('select 1').getvalue(0, 0)
    end
  end
end

step 'many_connections' do
  threads = 20.times.map do |t|
    Thread.new do
      connected do |c|
        10.times do |i|
          c.transaction do
            token = "#{t}-#{i}"
            c.exec_params("select set_config('app.token', $1, true)", [token])
            equal token, c.exec("select current_setting('app.token')").getvalue(0, 0)
          end
        end
      end
    end
  end
  threads.each { |thread| thread.report_on_exception = false }
  threads.each(&:join)
end

exit($failed ? 1 : 0)

-- What the tables of a collector answer (afm-triage events --to …), in DuckDB. Of a file:    duckdb all.duckdb
-- (that program is at duckdb.org; in Python: duckdb.connect("all.duckdb", read_only=True).sql("…"), as the extra tables brings it)
-- Of a folder, the same after: create view decisions as from read_parquet('DIR/decisions/**/*.parquet', hive_partitioning = true);
-- and so for labels and sessions. A decision belongs to a session by its ledger (stream) and its number there (seq).

-- yield by tip (without one: curves of no session)
select d.instrument, s.tip, count(*) as curves, round(avg((verdict = 'keep')::int), 4) as kept from decisions d left join sessions s on d.instrument = s.instrument and d.stream = s.stream and d.seq between s.first_seq and coalesce(s.last_seq, d.seq) group by all order by kept desc;
-- yield by hour of the measurement (UTC)
select instrument, time_bucket(interval '1 hour', coalesce(acquired, time)) as hour, count(*) as curves, count(*) filter (verdict = 'keep') as kept from decisions group by all order by hour desc, instrument limit 100;
-- yield by model and cut
select model, discard_at, count(*) as curves, round(avg((verdict = 'keep')::int), 4) as kept, round(avg((verdict = 'review')::int), 4) as review from decisions group by all order by curves desc;
-- who confirmed what
select rater, label, d.verdict as decided, count(*) as curves from labels l join decisions d on l.sha256 = d.sha256 and l.curve = d.curve and l.instrument = d.instrument group by all order by curves desc;
-- events that were discarded: a person says keep
select l.instrument, l.rater, d.path, d.curve, d.score, d.time from labels l join decisions d on l.sha256 = d.sha256 and l.curve = d.curve and l.instrument = d.instrument where l.label = 'keep' and d.verdict = 'discard' order by d.time;
-- where two people do not agree
select instrument, path, curve, list(rater || ': ' || label order by time) as said from labels group by all having count(distinct label) > 1;
-- how far each instrument is, and numbers that are missing: always 0
select instrument, stream, max(seq) as last_seq, max(seq) - min(seq) + 1 - count(*) as missing, max(time) as latest from decisions group by all order by latest desc;
-- ruptures of 150 pN and more, whatever the verdict
select instrument, path, curve, verdict, r.force_pn, r.position_nm from (select *, unnest(ruptures) as r from decisions) where r.force_pn >= 150 order by r.force_pn desc limit 100;
-- why curves had to be looked at
select instrument, reason, count(*) as curves from (select instrument, unnest(reasons) as reason from decisions where verdict = 'review') group by all order by curves desc;
-- how quickly verdicts came, by engine
select instrument, engine, count(*) as curves, quantile_cont(latency_s.total, [0.5, 0.99]) as seconds from decisions group by all order by curves desc;

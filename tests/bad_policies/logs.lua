kumo.configure_local_logs {
  max_segment_duration = -1,
  compression_level = 23,
  per_record = { Recption = { enable = false }, Any = { sufix = '_x' } },
  min_free_space = '10 GB',
}
kumo.define_spool { name = 'data' }
kumo.configure_local_logs { log_dir = '/var/log/x', filter_event = 'keep_it' }

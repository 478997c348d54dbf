"""RQ: jobs that succeed, fail, depend on each other and wait for their time."""

import datetime
import sys

import redis
import rq
from rq.job import Job, JobStatus

import rq_tasks


def result_of(job):
    """A method in newer versions, an attribute in older ones."""
    value = job.return_value
    return value() if callable(value) else value


def error_of(job):
    return job.latest_result().exc_string if hasattr(job, "latest_result") else job.exc_info


def main(host, port):
    connection = redis.Redis(host=host, port=port)
    queue = rq.Queue("default", connection=connection)
    jobs = [queue.enqueue(rq_tasks.add, n, 1) for n in range(20)]
    failing = queue.enqueue(rq_tasks.fail)
    dependent = queue.enqueue(rq_tasks.add, 1, 1, depends_on=jobs[-1])
    later = queue.enqueue_in(datetime.timedelta(milliseconds=1), rq_tasks.add, 2, 2)

    worker = rq.SimpleWorker([queue], connection=connection)
    worker.work(burst=True, with_scheduler=False)
    scheduler = rq.scheduler.RQScheduler([queue], connection=connection)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()
    worker.work(burst=True)

    for n, job in enumerate(jobs):
        fetched = Job.fetch(job.id, connection=connection)
        assert result_of(fetched) == n + 1, result_of(fetched)
    assert failing.get_status() == JobStatus.FAILED, failing.get_status()
    assert "expected to fail" in error_of(Job.fetch(failing.id, connection=connection))
    for job, expected in ((dependent, 2), (later, 4)):
        fetched = Job.fetch(job.id, connection=connection)
        assert result_of(fetched) == expected, fetched.get_status()
    assert len(queue) == 0
    assert queue.failed_job_registry.count == 1
    assert queue.finished_job_registry.count == 22, queue.finished_job_registry.count
    print(f"{len(jobs) + 3} jobs done by RQ {rq.VERSION}")


main(sys.argv[1], int(sys.argv[2]))

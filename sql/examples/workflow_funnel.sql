-- Branches are steps of their own, named by their path. Say the workflow: everything is counted.

-- Where do people stay, and where do they leave?
select
    step_path, step_type, entered, reach_rate, completed, waiting, exited, median_wait_minutes
from workflow_funnel
where workflow_id = (select min(workflow_id) from workflow_funnel) and version = 1
order by step_index, step_path;

-- Which workflows have people under way, or steps that failed?
select workflow_id, version, sum(waiting) as under_way, sum(failed) as failed_steps
from workflow_funnel
group by workflow_id, version
having sum(entered) > 0
order by workflow_id, version;

-- The last bucket, from 100, is open. Days that were only looked back at
-- ([a past day again](scoring.md#a-past-day-again)) are here too; a day that was scored at its time stays as it was.

-- Grades over the last week, best first.
select as_of, grade, sum(contacts) as contacts, rule_version
from score_distribution
where as_of > current_date - 7
group by as_of, grade, rule_version
order by as_of, min(bucket_from) desc;

-- What is the score of each bucket made of?
select
    bucket_from, sum(contacts) as contacts,
    round(sum(contacts * avg_engagement) / sum(contacts), 1) as engagement,
    round(sum(contacts * avg_profile) / sum(contacts), 1) as profile,
    round(sum(contacts * avg_recency) / sum(contacts), 1) as recency
from score_distribution
where as_of = (select max(as_of) from score_distribution)
group by bucket_from
order by bucket_from;

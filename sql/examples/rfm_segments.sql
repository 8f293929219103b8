-- Method: cut points. The 20th, 40th, 60th and 80th percentile of each figure (interpolated, `percentile_cont`) are the cuts; a score is 1 plus the
-- number of cuts below the figure, for recency 5 minus it. Equal figures get equal scores, so that the five groups are not equally large: where a
-- third has bought once, a third has frequency score 1 (`ntile` would deal them out over two scores by chance). The names:
--
-- | `rfm_segment` | r | f | m |
-- |---|---|---|---|
-- | champions | 5 | 4-5 | 4-5 |
-- | loyal | 3-5 | 4-5 | any, if not champions |
-- | potential_loyalists | 4-5 | 2-3 | any |
-- | new_customers | 5 | 1 | any |
-- | promising | 4 | 1 | any |
-- | need_attention | 3 | 3 | any |
-- | about_to_sleep | 3 | 1-2 | any |
-- | cannot_lose | 1-2 | 5 | 4-5 |
-- | at_risk | 1-2 | 3-5 | any, if not cannot_lose |
-- | hibernating | 1-2 | 1-2 | any |

-- How many customers of each kind, and what are they worth?
select
    rfm_segment, count(*) as customers, sum(monetary) as monetary,
    round(avg(recency_days)) as days_since_order
from rfm_segments
group by rfm_segment
order by monetary desc;

-- Where do the champions live?
select country, language, count(*) as champions, sum(monetary) as monetary, reporting_currency
from rfm_segments
inner join dim_contacts using (contact_id)
where rfm_segment = 'champions'
group by country, language, reporting_currency
order by champions desc;

-- The grid of recency and frequency.
select r_score, f_score, count(*) as customers
from rfm_segments
group by r_score, f_score
order by 1 desc, 2 desc;

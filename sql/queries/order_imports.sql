-- Orders from files: rows to orders, orders in pieces, rejected rows. order_import_lines,
-- order_import_orders and order_import_problems are the temporary tables of the file at work; the
-- tables of these names in the schema are their patterns and stay empty.

-- name: group_rows
-- Makes orders of the staged rows: what belongs to the order is said by any of its rows, in one voice.
insert into order_import_orders (
    place, order_id, first_line, row_count, left_out, problem, email, customer_id, placed_at,
    currency, total, discount, shipping, tax, refunded, country, lines)
select
    row_number() over (order by min(line)), order_id, min(line), count(*),
    case
        when min(status) = any(cast(:void as text[])) then 'void'
        when cast(:leaves_cancelled as boolean)
            and starts_with(order_id, cast(:cancelled_prefix as text)) then 'cancellation'
        when cast(:leaves_nobody as boolean)
            and min(email) is null and min(customer_id) is null then 'no_customer'
    end,
    case
        when order_id in (select order_id from order_import_problems where order_id is not null)
            then 'incomplete'
        when min(placed_at) is null then 'placed_at'
        when count(*) > cast(:max_lines as int) then 'too_many_lines'
        when min(email) <> max(email) or min(customer_id) <> max(customer_id) then 'customer'
        when min(currency) <> max(currency) then 'currency'
        when coalesce(min(currency), cast(:currency as text)) is null then 'no_currency'
        when min(total) <> max(total) or min(discount) <> max(discount)
            or min(shipping) <> max(shipping) or min(tax) <> max(tax)
            or min(refunded) <> max(refunded) then 'amounts'
        when min(total) is null and sum(amount) is null then 'no_total'
        when abs(coalesce(
            min(total), sum(amount) - coalesce(min(discount), 0) + coalesce(min(shipping), 0)
        )) >= 1e15 then 'too_much'
    end,
    min(email), min(customer_id), min(placed_at),
    coalesce(min(currency), cast(:currency as text)),
    coalesce(
        min(total), sum(amount) - coalesce(min(discount), 0) + coalesce(min(shipping), 0)),
    coalesce(min(discount), 0), coalesce(min(shipping), 0), coalesce(min(tax), 0),
    coalesce(min(refunded), 0), min(country),
    coalesce(jsonb_agg(item order by line) filter (where item is not null), '[]')
from order_import_lines
group by order_id;

-- name: months
-- Makes the monthly partitions of events that these orders fill; a few stray dates need none.
select made.partition_name
from (
    select cast(date_trunc('month', placed_at at time zone 'utc') as date) as month_start
    from order_import_orders
    where left_out is null and problem is null
    group by 1
    having count(*) >= 100
) as months
cross join lateral ensure_month_partition(cast('events' as regclass), months.month_start)
    as made (partition_name)
where made.partition_name is not null;

-- name: next_orders
-- The next orders to be taken, in the order of the file.
select
    place, order_id, first_line, row_count, email, customer_id, placed_at, currency, total,
    discount, shipping, tax, refunded, country, cast(lines as text) as lines
from order_import_orders
where place > cast(:after as bigint) and left_out is null and problem is null
order by place
limit cast(:limit as int);

-- name: note_conflicts
-- These orders are known with other content.
update order_import_orders
set problem = 'conflict'
where place = any(cast(:places as bigint[]));

-- name: reject_rows
-- Rejects the rows of orders that are not taken, those with a reason of their own excepted.
insert into order_import_problems (line, order_id, field, problem, advice)
select
    rows.line, rows.order_id, cast(:reasons as json) -> orders.problem ->> 'field',
    cast(:reasons as json) -> orders.problem ->> 'problem',
    cast(:reasons as json) -> orders.problem ->> 'advice'
from order_import_orders as orders
inner join order_import_lines as rows on rows.order_id = orders.order_id
where orders.problem is not null and orders.left_out is null
    and not exists (
        select 1 from order_import_problems as known where known.line = rows.line
    );

-- name: left_out
-- How many orders and rows were left out for which reason.
select left_out as reason, count(*) as order_count, cast(sum(row_count) as bigint) as row_count
from order_import_orders
where left_out is not null
group by left_out
order by left_out;

-- name: problems
-- The rejected rows, in the order of the file.
select line, field, problem, advice
from order_import_problems
where line > cast(:after as bigint)
order by line
limit cast(:limit as int);

-- name: count_problems
-- How many rows were rejected, and for what most of all.
select field, problem, count(*) as row_count
from order_import_problems
group by field, problem
order by row_count desc, field, problem;
